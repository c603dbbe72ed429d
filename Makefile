# Development tasks; `make` lists them. Every task installs what it misses first (tools/setup), and works in .build.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test check bench docs format format-check core-test install clean setup-%

BUILD := .build
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# The package under development is installed beside the user's libraries, not into them.
LIBRARY := $(BUILD)/library
export R_LIBS := $(CURDIR)/$(LIBRARY)$(if $(R_LIBS),:$(R_LIBS))

# What an installation, a source package and the format checks depend on. The lists are kept in files that change only
# when a list does, so that a deleted file counts as a change.
built := -name '*.o' -o -name '*.so' -o -name '*.dll' -o -name '*.a' -o -name 'symbols.rds' -o -name '*.html'
INSTALLED_FILES := $(sort $(shell find DESCRIPTION NAMESPACE R src inst data -type f ! \( $(built) \) 2>/dev/null))
SHIPPED_FILES := $(sort $(INSTALLED_FILES) $(shell find .Rbuildignore NEWS.md README.md man tests vignettes \
    -type f ! \( $(built) \) ! -path 'tests/cpp/*' 2>/dev/null))
CXX_FILES := $(sort $(shell find src/core src/bind_*.cpp tests/cpp examples -name '*.cpp' -o -name '*.h' -o -name '*.hpp' \
    2>/dev/null))
LINTED_FILES := $(sort $(shell find R tests vignettes -name '*.R' -o -name '*.Rmd' 2>/dev/null))
VIGNETTES := $(patsubst vignettes/%.Rmd,$(BUILD)/vignettes/%.html,$(sort $(wildcard vignettes/*.Rmd)))

keep_list = $(shell mkdir -p $(BUILD); echo '$(2)' > $(BUILD)/new-list; \
    cmp -s $(BUILD)/new-list $(BUILD)/$(1) || cp $(BUILD)/new-list $(BUILD)/$(1))
$(call keep_list,installed-files,$(INSTALLED_FILES))
$(call keep_list,shipped-files,$(SHIPPED_FILES))
$(call keep_list,formatted-files,$(CXX_FILES) $(LINTED_FILES))

help: ## list the tasks
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/:/' | awk -F': ' '{ printf "make %-14s%s\n", $$1, $$2 }'

# --- the package ------------------------------------------------------------------------------------------------------

demo: setup-runtime $(BUILD)/installed ## fit a real data set, print the fit and draw demo.png
	@echo "== demo: fitting MASS::Boston, drawing demo.png"
	@Rscript tools/demo.R

install: setup-runtime $(BUILD)/installed ## install the package into .build/library
	@echo "== install: cosmoe is in $(LIBRARY)"

setup-%:
	@tools/setup $*

# R's make rules do not know which source includes which header: after a change there, all objects are made anew.
$(BUILD)/installed: $(BUILD)/installed-files $(INSTALLED_FILES)
	@echo "== installing cosmoe into $(LIBRARY)"
	@mkdir -p $(LIBRARY)
	@$(if $(filter %.h %.hpp %Makevars DESCRIPTION,$?),find src -name '*.o' -exec rm -f {} +)
	@MAKEFLAGS=-j$(JOBS) R CMD INSTALL --no-multiarch --library=$(LIBRARY) . > $(BUILD)/install.log 2>&1 || \
	    { cat $(BUILD)/install.log; exit 1; }
	@touch $@

# --- tests ------------------------------------------------------------------------------------------------------------

define TEST_R
filter <- Sys.getenv("FILTER")
reporter <- testthat::ProgressReporter[["new"]](show_praise = FALSE, max_failures = Inf, update_interval = 3600)
results <- as.data.frame(testthat::test_dir("tests/testthat", package = "cosmoe", load_package = "installed",
    filter = if (nzchar(filter)) filter, reporter = reporter, stop_on_failure = FALSE))
failed <- results[["failed"]] > 0 | results[["error"]]
skipped <- results[["skipped"]] & !failed
cat(sprintf("testthat: %d passed, %d failed, %d skipped\n", sum(!failed & !skipped), sum(failed), sum(skipped)))
if (any(failed)) cat(sprintf("failed: %s: %s\n", results[["file"]][failed], results[["test"]][failed]), sep = "")
quit(status = as.integer(any(failed) || all(skipped)))
endef
export TEST_R

test: setup-test $(BUILD)/installed ## run the tests of the R package (FILTER=name runs tests/testthat/test-*name*.R only)
	@echo "== test: tests/testthat"
	@NOT_CRAN=true FILTER='$(FILTER)' Rscript -e "$$TEST_R"

core-test: ## build the core without R and run tests/cpp under sanitizers
	@tools/setup core
	@echo "== core-test: tests/cpp under address and undefined-behaviour sanitizers"
	@cmake -S . -B $(BUILD)/core -DCMAKE_BUILD_TYPE=Debug -DCOSMOE_SANITIZE=ON > $(BUILD)/cmake.log 2>&1 || \
	    { cat $(BUILD)/cmake.log; exit 1; }
	@MAKEFLAGS=--no-print-directory cmake --build $(BUILD)/core --parallel $(JOBS)
	@ctest --test-dir $(BUILD)/core --parallel $(JOBS) --output-on-failure --no-tests=error

# --- the source package -----------------------------------------------------------------------------------------------

$(BUILD)/tarball: $(BUILD)/shipped-files $(SHIPPED_FILES)
	@echo "== building the source package"
	@mkdir -p $(BUILD)/check
	@rm -f $(BUILD)/check/cosmoe_*.tar.gz
	@cd $(BUILD)/check && MAKEFLAGS=-j$(JOBS) R CMD build ../.. > ../build.log 2>&1 || { cat ../build.log; exit 1; }
	@touch $@

# Checks that ask the network about addresses and the time of day are left to a release.
$(BUILD)/check/00check.log: $(BUILD)/tarball
	@echo "== check: R CMD check --as-cran"
	@rm -rf $(BUILD)/check/cosmoe.Rcheck $@
	@cd $(BUILD)/check && MAKEFLAGS=-j$(JOBS) _R_CHECK_CRAN_INCOMING_REMOTE_=false _R_CHECK_SYSTEM_CLOCK_=false \
	    R CMD check --as-cran $$(command -v pdflatex > /dev/null || echo --no-manual) cosmoe_*.tar.gz
	@cp $(BUILD)/check/cosmoe.Rcheck/00check.log $@

check: setup-check $(BUILD)/check/00check.log cran-comments.md ## build the source package, R CMD check --as-cran
	@echo "== check: result ($(BUILD)/check/00check.log)"
	@awk 'FNR == NR { comments = comments $$0 "\n"; next } \
	    /^\* / { shown = 0 } \
	    /^\* checking .* (NOTE|WARNING|ERROR)$$/ { \
	        shown = 1; title = $$0; sub(/^\* checking /, "", title); sub(/ \.\.\. .*/, "", title); \
	        if (!/NOTE$$/) bad = 1; \
	        else if (!index(comments, title)) { bad = 1; print "This note is not explained in cran-comments.md:" } } \
	    shown { print } \
	    /^Status: / { status = $$0 } /^Status: .*(WARNING|ERROR)/ { bad = 1 } \
	    END { print (status == "" ? "The check did not finish" : status); exit bad || status == "" }' \
	    cran-comments.md $(BUILD)/check/00check.log

# --- documentation, format, benchmarks --------------------------------------------------------------------------------

docs: setup-docs $(BUILD)/attributes ## write NAMESPACE, man, RcppExports and the list of objects; render the vignettes
	@echo "== docs: NAMESPACE, man, list of objects"
	@Rscript -e 'suppressPackageStartupMessages(roxygen2::roxygenise(load_code = "source"))'
	@tools/list-objects
	@$(MAKE) --no-print-directory $(BUILD)/installed vignettes

$(BUILD)/attributes: $(wildcard src/bind_*.cpp)
	@echo "== docs: RcppExports"
	@[ -f NAMESPACE ] || echo '# Generated by roxygen2: do not edit by hand' > NAMESPACE
	@Rscript -e 'invisible(Rcpp::compileAttributes())'
	@touch $@

.PHONY: vignettes
vignettes: $(VIGNETTES)
	@echo "== docs: vignettes are in $(BUILD)/vignettes"

$(BUILD)/vignettes/%.html: vignettes/%.Rmd $(BUILD)/installed
	@echo "== docs: rendering $<"
	@Rscript -e 'rmarkdown::render("$<", output_dir = "$(@D)", intermediates_dir = "$(@D)", quiet = TRUE)'

define LINT_R
lints <- lintr::lint_package()
print(lints)
quit(status = as.integer(length(lints) > 0))
endef
export LINT_R

# lintr looks the package's own functions up in the installed package.
format: setup-format $(BUILD)/installed ## format C++ with clang-format, lint R
	@echo "== format: clang-format on C++"
	@clang-format -i $(CXX_FILES)
	@echo "== format: lintr on R"
	@Rscript -e "$$LINT_R" || true

format-check: setup-format $(BUILD)/installed $(BUILD)/format-checked ## fail if something is not formatted or a list is stale
	@echo "== format-check: fine"

$(BUILD)/format-checked: $(BUILD)/formatted-files $(CXX_FILES) $(LINTED_FILES) $(BUILD)/installed .clang-format .lintr
	@echo "== format-check: list of objects, clang-format on C++, lintr on R"
	@tools/list-objects --check
	@clang-format --dry-run -Werror $(CXX_FILES)
	@Rscript -e "$$LINT_R"
	@touch $@

bench: setup-bench $(BUILD)/installed ## compare speed and memory with R and other packages
	@echo "== bench: bench/run.R"
	@Rscript bench/run.R

clean: ## remove everything built
	@echo "== clean: removing $(BUILD), objects, demo.png"
	@rm -rf $(BUILD) demo.png
	@find src -name '*.o' -o -name '*.so' | while read -r file; do rm -f "$$file"; done
