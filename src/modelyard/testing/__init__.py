"""The test kit that ships with the product: conformance suites, fakes, and a real platform for tests."""
