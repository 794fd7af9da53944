package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd/inspect"
	"github.com/slipway-dev/slipway/apiserver/store/kv/keeper"
)

// openStore opens what keeps the cluster's objects. It stays open, or is opened again, until it is closed. A damaged
// store is refused before anything of it is changed, and one that is gone is not replaced by an empty one.
func openStore(ctx context.Context, data *dataDir, log *slog.Logger) (*keeper.Keeper, error) {
	open := func(ctx context.Context) (keeper.Engine, error) {
		if err := data.checkStore(ctx); err != nil {
			return nil, err
		}
		return etcd.Open(ctx, etcd.Config{Dir: data.etcd(), Log: log})
	}
	kept, err := keeper.Open(ctx, keeper.Config{Dir: data.path, Copies: data.snapshots(), Log: log, Open: open})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := data.markStore(); err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	return kept, nil
}

// storeMark says that the store was made: without it a missing store is a first start.
func (d *dataDir) storeMark() string { return filepath.Join(d.path, "store-made") }

func (d *dataDir) markStore() error {
	if _, err := os.Lstat(d.storeMark()); err == nil {
		return nil
	}
	if err := os.WriteFile(d.storeMark(), []byte("The store in etcd/ was made. If it is missing, see slipway recover.\n"), 0o600); err != nil {
		return fmt.Errorf("mark the store as made: %w", err)
	}
	return nil
}

// checkStore returns why the store cannot be opened, with the way back.
func (d *dataDir) checkStore(ctx context.Context) error {
	err := inspectInChild(ctx, d.etcd())
	if errors.Is(err, inspect.ErrEmpty) {
		if _, made := os.Lstat(d.storeMark()); errors.Is(made, fs.ErrNotExist) {
			return nil // the first start
		}
		err = fmt.Errorf("%s: it is gone, and it was there before", filepath.Join(d.etcd(), "member"))
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	flags := ""
	if d.path != defaultDataDir {
		flags = " --data-dir " + d.path
	}
	return usage("the store is damaged: %w\nNothing was changed. To go back to the newest snapshot, or to begin anew from Git: slipway recover%s", err, flags)
}

// checkTime bounds the look at a store.
const checkTime = 2 * time.Minute

// Exit codes of check-store.
const (
	storeEmpty   = 10
	storeDamaged = 11
)

// inspectInChild looks at a store, or at a snapshot file, in a process of its own: what reads damaged files may
// not survive it.
func inspectInChild(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "check-store", path)
	cmd.Args[0] = "slipway"
	var said, broke strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &broke
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("look at %s: it took longer than %s", path, checkTime)
	case !errors.As(err, &exit):
		return fmt.Errorf("look at %s: %w", path, err)
	case exit.ExitCode() == storeEmpty:
		return inspect.ErrEmpty
	case exit.ExitCode() == storeDamaged:
		return errors.New(lastLine(said.String()))
	}
	line, _, _ := strings.Cut(broke.String(), "\n")
	return fmt.Errorf("%s: reading it ends with %q", lastLine(said.String()), line)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}

// checkStoreCommand is what inspectInChild runs. It is not for people.
func checkStoreCommand() *cobra.Command {
	return &cobra.Command{Use: "check-store PATH", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return checkStore(args[0], cmd.OutOrStdout())
	}}
}

// checkStore prints the file it is at, and last what is wrong.
func checkStore(path string, out io.Writer) error {
	look := func(path string) error { return inspect.Directory(path, func(at string) { fmt.Fprintln(out, at) }) }
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		look = func(path string) error {
			fmt.Fprintln(out, path)
			_, err := inspect.Snapshot(path)
			return err
		}
	}
	switch err := look(path); {
	case errors.Is(err, inspect.ErrEmpty):
		return exitError{code: storeEmpty}
	case err != nil:
		fmt.Fprintln(out, err)
		return exitError{code: storeDamaged}
	}
	return nil
}
