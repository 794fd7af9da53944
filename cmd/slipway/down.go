package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/slipway-dev/slipway/cmd/slipway/account"
	"github.com/slipway-dev/slipway/cmd/slipway/purge"
)

// downOptions are what `slipway down` is told.
type downOptions struct {
	options
	purge bool
	yes   bool // do not ask
}

func downCommand() *cobra.Command {
	var o downOptions
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove the containers and everything else Slipway set up on this machine",
		Long: `Ends a running up, removes its containers, networks, packet filter rules and mounts, and ends the container
runtime. What is stored stays: the next up brings everything back. With --purge that goes, too: store, repository,
volumes, images, keys and log, after naming them. What hostPath volumes hold is not Slipway's and stays.`,
		Example: "  slipway down\n  slipway down --purge",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.yes && !o.purge {
				return usage("--yes goes with --purge: nothing else is asked")
			}
			return down(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.purge, "purge", false, "remove the data directory, too")
	f.BoolVar(&o.yes, "yes", false, "purge without asking")
	f.StringVar(&o.dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	f.StringVar(&o.podCIDR, "pod-cidr", "10.244.0.0/16", "as given to up")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "as given to up")
	f.StringVar(&o.containerd, "containerd-address", "", "as given to up")
	f.StringVar(&o.runtimeDir, "runtime-dir", "", "as given to up")
	return cmd
}

func down(ctx context.Context, o downOptions, in io.Reader, out io.Writer) error {
	if _, err := os.Stat(o.dataDir); err != nil {
		return usage("%w: nothing to take down there", err)
	}
	if o.purge {
		plan, err := purge.Look(o.dataDir)
		if err != nil {
			return usage("purge: %w", err)
		}
		if err := agreed(plan, o.yes, in, out); err != nil {
			return err
		}
	} else if _, err := os.Stat(filepath.Join(o.dataDir, formatFile)); err != nil {
		return usage("%s is not a data directory of Slipway: nothing to take down there", o.dataDir)
	}
	ran := o.ranContainers()
	if ran && os.Geteuid() != 0 {
		return usage("removing containers needs root: use sudo")
	}
	data, err := takeOver(ctx, o.dataDir, out)
	if err != nil {
		return err
	}
	defer data.close()
	summary := "no containers ran"
	if ran {
		if summary, err = removeContainers(ctx, o, data); err != nil {
			return err
		}
	}
	if !o.purge {
		_, err = fmt.Fprintf(out, "%s; %s keeps what is stored\n", summary, data.path)
		return failed(err)
	}
	fmt.Fprintln(out, summary)
	return removeData(o.dataDir, out)
}

// ranContainers tells whether an up on this data directory has run containers, on this machine or with a containerd of
// its own.
func (o options) ranContainers() bool {
	for _, name := range []string{"containerd", "engine"} {
		if _, err := os.Stat(filepath.Join(o.dataDir, name)); err == nil {
			return true
		}
	}
	return false
}

// agreed shows what would go and asks for a yes; where nobody can be asked, --yes must have said it.
func agreed(plan purge.Plan, yes bool, in io.Reader, out io.Writer) error {
	fmt.Fprint(out, plan)
	if yes {
		return nil
	}
	if file, ok := in.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return usage("nobody to ask here: --yes removes all of this for good; nothing was done")
	}
	fmt.Fprint(out, "all of this goes for good, and so do the containers; type yes to remove it: ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return usage("nothing was done")
	}
	return nil
}

// removeContainers takes down what runs on this machine and says what that was.
func removeContainers(ctx context.Context, o downOptions, data *dataDir) (summary string, err error) {
	o.apiAddress = "127.0.0.1:6443"
	a, err := o.addresses()
	if err != nil {
		return "", err
	}
	if err := data.giveBack(); err != nil {
		return "", failed(err)
	}
	log, closeLog, err := openLog(data.log(), false)
	if err != nil {
		return "", failed(err)
	}
	defer closeLog()
	m := &machine{options: o.options, addresses: a, data: data, log: log, account: account.New(io.Discard)} // the parts are opened to be removed
	summary, err = m.takeDown(ctx)
	return summary, failed(err)
}

// removeData removes the data directory, of which nothing is in use any more.
func removeData(dir string, out io.Writer) error {
	plan, err := purge.Look(dir)
	if err != nil {
		return failed(fmt.Errorf("purge: %w", err))
	}
	if err := plan.Remove(); err != nil {
		return failed(fmt.Errorf("purge: %w", err))
	}
	if _, err := os.Stat(dir); err == nil {
		_, err = fmt.Fprintf(out, "removed what Slipway kept in %s\n", dir)
		return failed(err)
	}
	_, err = fmt.Fprintf(out, "removed %s\n", dir)
	return failed(err)
}

// takeOver opens the data directory, ending the process that holds it.
func takeOver(ctx context.Context, path string, out io.Writer) (*dataDir, error) {
	data, err := openDataDir(path)
	var busy busyError
	if !errors.As(err, &busy) || busy.pid == 0 {
		return data, err
	}
	fmt.Fprintf(out, "ending slipway up, pid %d\n", busy.pid)
	if err := syscall.Kill(busy.pid, syscall.SIGTERM); err != nil {
		return nil, failed(fmt.Errorf("end pid %d: %w", busy.pid, err))
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		data, err := openDataDir(path)
		if err == nil || !errors.As(err, &busy) {
			return data, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, failed(fmt.Errorf("pid %d did not end within 30 s", busy.pid))
		}
	}
}
