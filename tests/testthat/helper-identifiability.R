# The table on the help page of check_identifiability(), made anew: a row an expert, in markdown. To update the page,
# paste `cat(paste0("#' ", identifiability_table()), sep = "\n")`.

# What the paper says of weak and strong identifiability under the perturbed router.
paper_claims <- function() {
  c(
    constant = "no / no", linear = "yes / no", `polynomial(2)` = "yes / yes", `polynomial(3)` = "yes / yes",
    relu = "yes / yes", gelu = "", tanh = "yes / yes", sigmoid = "", softplus = "", `network, tanh` = "",
    `network, relu` = ""
  )
}

identifiability_experts <- function() {
  experts <- list(
    expert_constant(), expert_linear(), expert_polynomial(2), expert_polynomial(3), expert_relu(), expert_gelu(),
    expert_tanh(), expert_sigmoid(), expert_softplus(), expert_network(2), expert_network(2, "relu")
  )
  stats::setNames(experts, names(paper_claims()))
}

identifiability_table <- function() {
  routers <- c("linear", "cosine", "perturbed_cosine")
  cell <- function(expert, router) {
    facts <- as.data.frame(check_identifiability(expert, router, draws = 1))[1:2, ]
    ranks <- paste0(facts$rank, "/", facts$size)
    paste(c(ranks, if (facts$rates[2]) "yes" else "no"), collapse = ", ")
  }
  row <- function(name) {
    cells <- vapply(routers, function(router) ref_with_seed(1, cell(identifiability_experts()[[name]], router)), "")
    c(name, paper_claims()[[name]], cells)
  }
  lines <- vapply(names(paper_claims()), function(name) paste(row(name), collapse = " | "), "", USE.NAMES = FALSE)
  paste("|", c(paste(c("expert", "paper: weak / strong", gsub("_", " ", routers)), collapse = " | "),
               paste(rep("---", 5), collapse = " | "), lines), "|")
}
