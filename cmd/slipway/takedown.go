package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// takeDown removes what is on this machine and keeps what is stored.
func (m *machine) takeDown(ctx context.Context) (err error) {
	n, err := openNode(ctx, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	containers, err := n.engine.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		if err := n.engine.Remove(ctx, c.ID); err != nil {
			return fmt.Errorf("remove container %s: %w", c.ID, err)
		}
	}
	sandboxes, err := n.network.List(ctx)
	if err != nil {
		return fmt.Errorf("list pod networks: %w", err)
	}
	for _, id := range sandboxes {
		if err := n.network.Teardown(ctx, id); err != nil {
			return fmt.Errorf("remove pod network %s: %w", id, err)
		}
	}
	err = errors.Join(n.dns.Close(), n.proxy.Close(), n.network.Close(ctx))
	n.dns, n.proxy = nil, nil
	err = errors.Join(err, n.runtime.Stop(ctx), os.RemoveAll(m.data.run()))
	if err != nil {
		return err
	}
	m.account.Say(fmt.Sprintf("removed %d containers in %d pods; %s keeps what is stored", len(containers), len(sandboxes), m.data.path))
	return nil
}
