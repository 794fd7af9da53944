package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/gitsource/local"
	"github.com/slipway-dev/slipway/gitsource/remote"
)

// source is where intent comes from, and how it is remembered.
type source struct {
	gitsource.Source
	spec slipwayv1.SourceSpec
}

// isURL tells a remote repository from a directory: a scheme, or host:path as git has it.
func isURL(text string) bool {
	if strings.Contains(text, "://") {
		return true
	}
	host, _, found := strings.Cut(text, ":")
	return found && !strings.ContainsAny(host, "/.") || found && strings.Contains(host, "@")
}

func (o options) openSource(log *slog.Logger) (source, error) {
	if isURL(o.source) {
		from, err := remote.New(remote.Options{URL: o.source, Branch: o.branch, Path: o.path, Dir: filepath.Join(o.dataDir, "git"), Log: log})
		if err != nil {
			return source{}, usage("%w", err)
		}
		return source{from, slipwayv1.SourceSpec{URL: from.String(), Branch: o.branch, Path: o.path}}, nil
	}
	if o.branch != "" {
		return source{}, usage("--branch goes with a repository URL; %s is a directory, which is followed as it is", o.source)
	}
	dir, err := filepath.Abs(o.source)
	if err != nil {
		return source{}, usage("source: %w", err)
	}
	info, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		return source{}, usage("%s does not exist: give a directory of manifests or the URL of a repository", dir)
	case err != nil:
		return source{}, usage("source: %w", err)
	case !info.IsDir():
		return source{}, usage("%s is a file: give the directory it is in", dir)
	}
	if _, err := os.ReadDir(dir); err != nil {
		return source{}, usage("source: %w", err)
	}
	if o.path != "" {
		if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(o.path))); err != nil || !info.IsDir() {
			return source{}, usage("--path: %s has no folder %s", dir, o.path)
		}
	}
	return source{local.New(dir, local.Options{Log: log}), slipwayv1.SourceSpec{Dir: dir, Path: o.path}}, nil
}

// described names a source for people.
func described(spec slipwayv1.SourceSpec) string {
	where := spec.URL
	if spec.Dir != "" {
		where = spec.Dir
	}
	if spec.Branch != "" {
		where += ", branch " + spec.Branch
	}
	if spec.Path != "" {
		where += ", folder " + spec.Path
	}
	return where
}
