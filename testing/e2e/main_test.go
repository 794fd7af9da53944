// Package e2e shows the whole of Slipway at work: the real binary on real containers, read with kubectl, in
// namespaces of its own.
package e2e

import (
	"context"
	"os"
	"testing"

	"github.com/slipway-dev/slipway/testing/images/voting"
	"github.com/slipway-dev/slipway/testing/isolated"
)

func TestMain(m *testing.M) {
	os.Exit(isolated.Main(m, func() error { return voting.Fetch(context.Background()) }))
}
