# The commands are the scripts; this file is for those who type make. Arguments: make test ARGS="-k limits"
.PHONY: install run test check bench lock docs

install run test check bench lock:
	@scripts/$@ $(ARGS)

docs:
	@scripts/check --write-docs
