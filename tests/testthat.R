library(testthat)
library(cosmoe)

test_check("cosmoe")
