package main

func Example() {
	main()
	// Output:
	// settling A1
	// the ledger says 12000
}
