// Package tests holds what needs more than one of Pabal's modules: the reference system on real databases and brokers.
package tests
