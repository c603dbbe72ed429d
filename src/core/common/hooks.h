// What a host can hook into a running fit. Always an argument, never a global.
#pragma once

#include <chrono>
#include <functional>

namespace cosmoe {

struct Hooks {
    // True ends the fit with the best point so far. Asked from the calling thread only.
    std::function<bool()> interrupted;

    // Asks the host at most every twentieth of a second.
    bool stop_requested() const {
        if (!interrupted) return false;
        const auto now = std::chrono::steady_clock::now();
        if (now - last_asked < std::chrono::milliseconds(50)) return false;
        last_asked = now;
        return interrupted();
    }

    mutable std::chrono::steady_clock::time_point last_asked{};
};

}  // namespace cosmoe
