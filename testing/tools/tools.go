// Package tools pins the programs that tests are run against. It is a module of its own so that their dependencies
// stay out of Slipway's.
package tools

import _ "k8s.io/kubernetes/cmd/kubectl" // built by `make tools` into bin/kubectl
