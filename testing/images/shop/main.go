// Command shop makes the images of examples-repo from its Go programs and writes them to one OCI archive.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/slipway-dev/slipway/testing/images"
)

// made lists the shop's images. web has two, told apart by their colour.
var made = []struct {
	folder, ref string
	env         []string
}{
	{"./examples-repo/src/cache", "shop.local/cache:1.0", nil},
	{"./examples-repo/src/api", "shop.local/api:1.0", nil},
	{"./examples-repo/src/web", "shop.local/web:1.0", []string{"SHOP_VERSION=1.0", "SHOP_ACCENT=#2f6f4f"}},
	{"./examples-repo/src/web", "shop.local/web:2.0", []string{"SHOP_VERSION=2.0", "SHOP_ACCENT=#8a4b2d"}},
}

func main() {
	out := flag.String("o", "shop.tar", "archive to write")
	flag.Parse()
	if err := run(context.Background(), *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string) error {
	var all []images.Image
	for _, m := range made {
		image, err := images.FromGo(ctx, m.folder, m.ref)
		if err != nil {
			return fmt.Errorf("make %s: %w", m.ref, err)
		}
		image, err = image.With(m.ref, images.Config{Env: m.env, User: "65532:65532"})
		if err != nil {
			return fmt.Errorf("make %s: %w", m.ref, err)
		}
		all = append(all, image)
	}
	return images.WriteArchive(path, all...)
}
