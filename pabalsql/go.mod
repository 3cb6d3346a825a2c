module github.com/pabal-go/pabal/pabalsql

go 1.26.0

require (
	github.com/google/uuid v1.6.0
	github.com/pabal-go/pabal v0.0.0
	modernc.org/sqlite v1.61.1
)

require filippo.io/edwards25519 v1.2.0 // indirect

require (
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/go-sql-driver/mysql v1.10.1
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/ncruces/go-strftime v1.1.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	golang.org/x/sys v0.49.0 // indirect
	modernc.org/libc v1.79.0 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
)

replace github.com/pabal-go/pabal => ../
