package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipway-dev/slipway/testing/cluster"
)

// group is what is measured on one cluster.
type group struct {
	name    string
	measure func(h *host, s settings, r *report) error
}

func groups() []group {
	return []group{
		{"idle", measureIdle},
		{"pod", measurePod},
		{"burst", measureBurst},
		{"save", measureSave},
		{"commit", measureCommit},
	}
}

func names() []string {
	var all []string
	for _, g := range groups() {
		all = append(all, g.name)
	}
	return all
}

// chosen returns the groups that -only names.
func (s settings) chosen() []group {
	var chosen []group
	for _, g := range groups() {
		if strings.Contains(g.name, s.only) {
			chosen = append(chosen, g)
		}
	}
	return chosen
}

// run measures one group; what goes wrong is in the report.
func run(ctx context.Context, g group, s settings, dir string, r *report) {
	if err := try(ctx, dir, func(h *host) error { return g.measure(h, s, r) }); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", g.name, err)
		r.fail(g.name, err)
	}
}

// following starts slipway on a directory and returns it, the directory and a watcher.
func following(h *host, s settings) (*cluster.Slipway, tree, *watcher, error) {
	files := tree{dir: h.TempDir(), staging: h.TempDir()}
	// One object always stays: a tree without any object prunes nothing.
	if err := files.save("base.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: base}\n"); err != nil {
		return nil, files, nil, err
	}
	up := cluster.Up(h, files.dir, "--images", s.archive)
	up.WaitOutput("everything is current", 1)
	w, err := watchPods(h.ctx, up.Kubeconfig)
	return up, files, w, err
}

// tree is a followed directory.
type tree struct{ dir, staging string }

// save writes a file as an editor does: a rename over what was there.
func (t tree) save(name, content string) error {
	staged := filepath.Join(t.staging, name)
	if err := os.WriteFile(staged, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(staged, filepath.Join(t.dir, name)); err != nil {
		return fmt.Errorf("save manifest: %w", err)
	}
	return nil
}

func (t tree) remove(name string) error {
	if err := os.Remove(filepath.Join(t.dir, name)); err != nil {
		return fmt.Errorf("remove manifest: %w", err)
	}
	return nil
}
