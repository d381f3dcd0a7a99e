"""The test kit that ships with the product: conformance suites, fakes, and a real platform for tests.

`modelyard.testing.platform.Platform` starts `modelyard up` on free ports in a temporary directory and takes it down to
the last process. The product never imports this package.
"""
