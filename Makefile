# One command checks all: `make check`. Each part has a name of its own.
.PHONY: check format lint types test slow

check: format lint types test

format:
	ruff format --check .

lint:
	ruff check .

types:
	mypy .

# Two tests at a time, each on one thread, where pytest-xdist is installed.
TWO_AT_A_TIME = $(shell python3 -c "import xdist" 2>/dev/null && printf %s "-n 2")

test:
	OMP_NUM_THREADS=1 pytest -q $(TWO_AT_A_TIME)

# The tests that take longer, among them Visdom's page in a browser and every engine that is installed. Those that
# share what takes long to make are a group, which one process runs.
slow:
	OMP_NUM_THREADS=1 pytest -q -m slow $(TWO_AT_A_TIME) $(if $(TWO_AT_A_TIME),--dist loadgroup)
