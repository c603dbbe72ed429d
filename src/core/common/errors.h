// The core's own exceptions. Messages carry the numbers; hosts translate them to their conditions.
#pragma once

#include <stdexcept>
#include <string>

namespace cosmoe {

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// An argument outside its documented range.
struct InvalidArgument : Error {
    using Error::Error;
};

// The host asked to stop (see Hooks). Fits catch it and return the best point so far.
struct Interrupted : Error {
    Interrupted() : Error("interrupted") {}
};

}  // namespace cosmoe
