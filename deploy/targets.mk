# What people type. The rules that compile are in the Makefile.

.PHONY: help clean
help: ## List the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile deploy/targets.mk

clean: ## Remove everything that was built
	rm -rf build
