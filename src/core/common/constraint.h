// Where a block of parameters may lie: anywhere, in a ball round the origin, on its sphere.
#pragma once

namespace cosmoe {

enum class ConstraintKind { free, ball, sphere };

}  // namespace cosmoe
