# One command checks all: `make check`. Each part has a name of its own.
.PHONY: check format lint types test slow

check: format lint types test

format:
	ruff format --check .

lint:
	ruff check .

types:
	mypy .

test:
	pytest -q

# The tests that take longer, among them Visdom's page in a browser and every engine that is installed.
slow:
	pytest -q -m slow
