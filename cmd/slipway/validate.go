package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/slipway-dev/slipway/gitsource/local"
	"github.com/slipway-dev/slipway/gitsource/manifest"
)

func validateCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Say everything that is wrong with a directory of manifests",
		Long: `Reads a directory as up would and prints every error with file and line, and what the manifests ask for that
this version does not act on. Needs no root and changes nothing. Exit status 3: there are errors.`,
		Example: "  slipway validate ./shop",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := options{source: ".", path: path}
			if len(args) == 1 {
				o.source = args[0]
			}
			return validate(cmd, o)
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "folder inside the tree to read")
	return cmd
}

func validate(cmd *cobra.Command, o options) error {
	if isURL(o.source) {
		return usage("validate reads a directory: clone %s first", o.source)
	}
	source, err := o.openSource(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	snapshot, err := local.Read(cmd.Context(), source.spec.Dir)
	if err != nil {
		return failed(err)
	}
	result, problems := manifest.Read(snapshot, manifest.Options{Path: o.path})
	out := cmd.OutOrStdout()
	for _, note := range result.NotActedOn {
		fmt.Fprintln(out, note)
	}
	for _, problem := range problems {
		fmt.Fprintln(out, problem)
	}
	if len(problems) > 0 {
		return exitError{exitInvalid, fmt.Errorf("%d errors in %s", len(problems), source.spec.Dir)}
	}
	fmt.Fprintf(out, "%d objects in %s, no errors\n", len(result.Objects), source.spec.Dir)
	return nil
}
