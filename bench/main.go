// Command bench measures Pabal.
package main

func main() {}
