package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/seal"
)

// secretKeys is the file in the data directory with the keys Secrets are encrypted with.
const secretKeys = "secrets.key"

// openSealed puts the encryption of Secrets before a backend.
func openSealed(ctx context.Context, backend kv.Backend, data *dataDir, log *slog.Logger) (*seal.Backend, error) {
	sealed, err := seal.Open(ctx, seal.Config{Backend: backend, KeyFile: data.secretKeys(), Prefix: store.KeyPrefix(api.Secrets), Log: log})
	if err != nil {
		return nil, usage("%w", err)
	}
	return sealed, nil
}

func rotateKeyCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Encrypt all Secrets in the store with a new key",
		Long: `Adds a new key to secrets.key in the data directory, waits until every Secret in the store is encrypted with it
and the old key has left the file. It works while up runs, which then does the work, and while it does not. It may be
interrupted at any moment: Secrets stay readable, and the next rotate-key, or up, goes on where it was.

Copies of the store made before need the old key: keep a copy of secrets.key with them, in another place.`,
		Example: "  slipway rotate-key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return rotateKey(cmd.Context(), dataDir, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	return cmd
}

func rotateKey(ctx context.Context, dataDir string, out io.Writer) error {
	path := filepath.Join(dataDir, secretKeys)
	if _, err := os.Stat(path); err != nil {
		return usage("%w: is this the data directory of `slipway up`, and may you read it?", err)
	}
	name, added, err := seal.AddKey(path)
	switch {
	case err != nil:
		return usage("%w", err)
	case added:
		fmt.Fprintf(out, "new key %s is in %s\n", name, path)
	default:
		fmt.Fprintf(out, "a rotation to key %s was under way already: going on with it\n", name)
	}
	for told := (seal.Progress{}); ; {
		p, err := rotated(ctx, dataDir, path)
		if err != nil {
			return failed(err)
		}
		if p.Problem != "" && p.Problem != told.Problem {
			fmt.Fprintln(out, p.Problem)
		}
		if p.Keys == 1 {
			fmt.Fprintf(out, "%d Secrets are encrypted with key %s, the old keys are gone; keep a new copy of %s\n", p.Secrets, p.Key, path)
			return nil
		}
		if p.Sealed != told.Sealed {
			fmt.Fprintf(out, "%d of %d Secrets\n", p.Sealed, p.Secrets)
		}
		told = p
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return failed(fmt.Errorf("stopped waiting; `slipway up` goes on by itself: %w", ctx.Err()))
		}
	}
}

// rotated says how far the process is that holds the data directory or, when none does, does the work here.
func rotated(ctx context.Context, dataDir, path string) (seal.Progress, error) {
	data, err := openDataDir(dataDir)
	var busy busyError
	if errors.As(err, &busy) {
		return seal.ReadProgress(path)
	}
	if err != nil {
		return seal.Progress{}, err
	}
	defer data.close()
	log := slog.New(slog.DiscardHandler)
	backend, err := openStore(ctx, data, log)
	if err != nil {
		return seal.Progress{}, err
	}
	defer backend.Close()
	sealed, err := openSealed(ctx, backend, data, log)
	if err != nil {
		return seal.Progress{}, err
	}
	return sealed.Settle(ctx)
}
