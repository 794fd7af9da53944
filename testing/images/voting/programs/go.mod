module github.com/slipway-dev/slipway/testing/images/voting/programs

go 1.26.6

require github.com/lib/pq v1.12.3
