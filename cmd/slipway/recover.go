package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/keeper"
)

// recovery is what `slipway recover` is told.
type recovery struct {
	dataDir  string
	snapshot string
	fromGit  bool
}

func recoverCommand() *cobra.Command {
	var r recovery
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Replace a damaged store by its newest snapshot, or by an empty one that Git fills",
		Long: `Makes a new store from the newest usable snapshot in the data directory. The damaged one is moved aside and kept.
The next up applies Git's newest commit to it; containers that are still wanted go on running.

A snapshot is made every hour. With --from-git nothing is taken from any: Git fills the store again, and what only the
store knew is gone: Events, Leases, the history of rollouts, the addresses and ports Services were given, Pods' identities
(they are made anew), and tokens bound to them.`,
		Example: "  slipway recover\n  slipway recover --snapshot /var/lib/slipway/snapshots/20300102T150405Z.snapshot\n  slipway recover --from-git",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&r.dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	f.StringVar(&r.snapshot, "snapshot", "", "snapshot to go back to (default: the newest that is usable)")
	f.BoolVar(&r.fromGit, "from-git", false, "use no snapshot")
	cmd.MarkFlagsMutuallyExclusive("snapshot", "from-git")
	return cmd
}

func (r recovery) run(ctx context.Context, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(r.dataDir, formatFile)); err != nil {
		return usage("%s is no data directory of Slipway: %w", r.dataDir, err)
	}
	data, err := openDataDir(r.dataDir)
	if err != nil {
		return err
	}
	defer data.close()
	if err := data.checkSpace(leastSpace); err != nil {
		return err
	}
	from, err := r.choose(ctx, data, out)
	if err != nil {
		return err
	}
	return failed(data.replaceStore(ctx, from, out))
}

// choose returns the snapshot to go back to, empty for none.
func (r recovery) choose(ctx context.Context, data *dataDir, out io.Writer) (string, error) {
	if r.fromGit {
		return "", nil
	}
	var candidates []string
	if r.snapshot != "" {
		candidates = []string{r.snapshot}
	} else {
		copies, err := keeper.Copies(data.snapshots())
		if err != nil {
			return "", failed(err)
		}
		for _, c := range copies {
			candidates = append(candidates, c.Path)
		}
	}
	for _, path := range candidates {
		err := inspectInChild(ctx, path)
		if err == nil {
			return path, nil
		}
		fmt.Fprintf(out, "not usable: %v\n", err)
	}
	return "", usage("there is no usable snapshot in %s: slipway recover --from-git begins anew from Git", data.snapshots())
}

// replaceStore makes a new store beside the old one and exchanges them. An interrupted one is begun again.
func (d *dataDir) replaceStore(ctx context.Context, from string, out io.Writer) error {
	fresh := d.etcd() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove what an interrupted recovery left: %w", err)
	}
	// Revisions go on where nobody can have been: they are counted up by one, the clock's microseconds are more.
	revision, err := etcd.Restore(ctx, fresh, from, uint64(max(0, time.Now().UnixMicro())))
	if err != nil {
		return err
	}
	aside := d.etcd() + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	err = os.Rename(d.etcd(), aside)
	if errors.Is(err, fs.ErrNotExist) {
		aside, err = "", nil
	}
	if err == nil {
		err = os.Rename(fresh, d.etcd())
	}
	if err == nil {
		err = errors.Join(syncDir(d.path), d.markStore())
	}
	if err != nil {
		return fmt.Errorf("exchange the store: %w", err)
	}
	if from == "" {
		fmt.Fprintf(out, "the store is empty now, at revision %d: the next up fills it from Git\n", revision)
	} else {
		fmt.Fprintf(out, "the store is as in %s now, at revision %d: the next up applies what Git has since\n", from, revision)
	}
	if aside != "" {
		fmt.Fprintf(out, "what was there before is kept in %s; remove it when all is well\n", aside)
	}
	return nil
}

// syncDir makes renames in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
