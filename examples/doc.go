// Package examples shows Pabal under libraries that people use on database/sql. Nothing is called differently: the library gets
// a pool of watched connections, and Record the transaction that the library works in.
package examples
