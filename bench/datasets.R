# A data set of a package, NULL without the package.
bench_data <- function(package, name) {
  if (!requireNamespace(package, quietly = TRUE)) {
    return(NULL)
  }
  holder <- new.env()
  utils::data(list = name, package = package, envir = holder)
  get0(name, holder)
}

# The real data of the task `starts`: formula, data, number of experts, kind of expert.
bench_datasets <- function() {
  set <- function(package, name, formula, k, expert = "linear") {
    list(name = name, data = bench_data(package, name), formula = formula, k = k, expert = expert)
  }
  sets <- list(
    set("MASS", "Boston", medv ~ . | lstat + rm + ptratio, k = 2),
    set("MASS", "Boston", medv ~ . | lstat + rm + ptratio, k = 3),
    set("MASS", "mcycle", accel ~ times, k = 3),
    set("MASS", "mcycle", accel ~ times, k = 3, expert = "gelu"),
    set("lattice", "ethanol", NOx ~ E + C, k = 3),
    set("datasets", "airquality", Ozone ~ Temp + Wind + Solar.R, k = 3),
    set("datasets", "faithful", waiting ~ eruptions, k = 2),
    set("datasets", "quakes", stations ~ mag + depth | lat + long, k = 3),
    set("datasets", "swiss", Fertility ~ Education + Catholic, k = 2),
    set("datasets", "cars", dist ~ speed, k = 2, expert = "gelu"),
    set("mixtools", "NOdata", Equivalence ~ NO, k = 2),
    set("mixtools", "CO2data", CO2 ~ GNP, k = 2),
    set("mixtools", "tonedata", tuned ~ stretchratio, k = 2)
  )
  Filter(function(set) !is.null(set$data), sets)
}
