// Command slipway is the whole of Slipway in one binary: it makes a machine run what a Git repository or a
// directory of Kubernetes manifests says.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when the binary is built.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var exit exitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "slipway: "+exit.Error())
		}
		os.Exit(exit.code)
	default:
		fmt.Fprintln(os.Stderr, "slipway: "+err.Error())
		os.Exit(exitUsage)
	}
}

// run is main without the process: it parses args and runs one command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:           "slipway",
		Short:         "Run what a Git repository says, on this machine",
		Long:          "Slipway runs the Kubernetes manifests of a Git repository or a directory on this machine.\nPeople change things by committing or saving; kubectl reads everything.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(upCommand(), downCommand(), validateCommand(), statusCommand(), historyCommand(), confirmCommand(), rotateKeyCommand(), kubeconfigCommand(), versionCommand(), recoverCommand(), checkStoreCommand())
	return root.ExecuteContext(ctx)
}
