package pabalsql

// Split is for tests of what an interrupted migration leaves.
var Split = split
