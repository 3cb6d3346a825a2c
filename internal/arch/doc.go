// Package arch holds the tests of what docs/architecture.md promises about the code itself.
package arch
