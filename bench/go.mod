module github.com/pabal-go/pabal/bench

go 1.26.0

require github.com/pabal-go/pabal v0.0.0

require github.com/google/uuid v1.6.0 // indirect

replace github.com/pabal-go/pabal => ../
