"""Conformance suites, one a port: subclass the suite, give it a fixture, and the port's promises are tested."""
