# D-optimal designs by OptimalDesign::od_REX (Harman, Filova and Richtarik 2020), timed.
#
#   Rscript od_rex.R                              the package's version; fails where it is missing
#   Rscript od_rex.R ROWS.csv K GAP RESULT.csv    one problem per K lines of ROWS; a line of RESULT
#                                                 per problem: seconds, then the K weights
arguments <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("OptimalDesign", quietly = TRUE)) {
  write("R has no package OptimalDesign", stderr())
  quit(status = 3)
}
if (length(arguments) == 0) {
  cat("OptimalDesign", format(packageVersion("OptimalDesign")), "on", R.version.string, "\n")
  quit(status = 0)
}

rows <- unname(as.matrix(read.csv(arguments[1], header = FALSE)))
num_candidates <- as.integer(arguments[2])
efficiency <- 1 / (1 + as.numeric(arguments[3]))

solve_one <- function(problem) {
  of_problem <- rows[(problem - 1) * num_candidates + seq_len(num_candidates), , drop = FALSE]
  start <- proc.time()[["elapsed"]]
  design <- OptimalDesign::od_REX(of_problem, crit = "D", eff = efficiency, track = FALSE)
  c(proc.time()[["elapsed"]] - start, design$w.best)
}

set.seed(1) # REX goes through its exchanges in random order
invisible(solve_one(1)) # the first call compiles
results <- t(sapply(seq_len(nrow(rows) / num_candidates), solve_one))
write.table(format(results, digits = 17), arguments[4],
  sep = ",", quote = FALSE, row.names = FALSE, col.names = FALSE
)
