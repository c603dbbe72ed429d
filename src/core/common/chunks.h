// Work cut into chunks and spread over threads. What a chunk computes must not depend on who computes it; with sums
// kept by chunk and added in chunk order, results have the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "common/errors.h"
#include "common/hooks.h"

namespace cosmoe {

inline std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Runs task(chunk, scratch, go_on) for chunk = 0 .. count - 1. Each thread makes its own scratch. A task asks go_on()
// between its blocks and returns when that is false. Only the calling thread talks to the host; an exception or an
// interrupt drains the others before it is thrown here.
template <class MakeScratch, class Task>
void run_chunks(std::size_t count, std::size_t threads, const Hooks& hooks, MakeScratch make_scratch, Task task) {
    std::atomic<std::size_t> next{0};
    std::atomic<bool> stop{false};
    std::exception_ptr failure;
    std::mutex guard;
    const auto work_off = [&](bool main_thread) {
        const auto go_on = [&] {
            if (main_thread && hooks.stop_requested()) throw Interrupted();
            return !stop;
        };
        try {
            if (!go_on()) return;
            auto scratch = make_scratch();
            for (std::size_t c = next++; c < count && !stop; c = next++) task(c, scratch, go_on);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!failure) failure = std::current_exception();
            stop = true;
        }
    };
    std::vector<std::thread> workers;
    try {
        for (std::size_t t = 1; t < std::min(threads, count); ++t) workers.emplace_back(work_off, false);
    } catch (const std::system_error&) {
        // As many as the system grants: the result does not depend on their number.
    }
    work_off(true);
    for (std::thread& worker : workers) worker.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace cosmoe
