package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/logs"
	"github.com/slipway-dev/slipway/nodeagent/volume"
)

// takeDown removes what is on this machine and keeps what is stored. It says what it removed.
func (m *machine) takeDown(ctx context.Context) (summary string, err error) {
	n, err := newNode(m)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.openEngine(ctx, m); err != nil {
		return "", err
	}
	if err := n.openNetwork(ctx, m); err != nil {
		return "", err
	}
	containers, err := n.engine.List(ctx)
	if err != nil {
		return "", fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		if err := n.engine.Remove(ctx, c.ID); err != nil {
			return "", fmt.Errorf("remove container %s: %w", c.ID, err)
		}
	}
	sandboxes, err := n.network.List(ctx)
	if err != nil {
		return "", fmt.Errorf("list pod networks: %w", err)
	}
	for _, id := range sandboxes {
		if err := n.network.Teardown(ctx, id); err != nil {
			return "", fmt.Errorf("remove pod network %s: %w", id, err)
		}
	}
	if err := m.removePodFiles(ctx); err != nil {
		return "", err
	}
	patient, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = errors.Join(n.dns.Close(), n.proxy.Close(), n.network.Close(ctx))
	n.dns, n.proxy = nil, nil
	err = errors.Join(err, n.runtime.Stop(ctx), cgroup.At(cgroup.Mount, m.data.cgroup()).Remove(patient, ""), os.RemoveAll(m.data.run()))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("removed %d containers in %d pods", len(containers), len(sandboxes)), nil
}

// removePodFiles removes Pods' volumes that are made anew with each container, and their logs.
func (m *machine) removePodFiles(ctx context.Context) error {
	volumes := volume.New(m.data.pods(), nil)
	pods, err := volumes.List()
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, uid := range pods {
		if err := volumes.Teardown(ctx, uid); err != nil {
			return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
		}
	}
	folders, err := logs.Owned(podLogs, m.data.path)
	if err != nil {
		return err
	}
	for uid, dir := range folders {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove logs of pod %s: %w", uid, err)
		}
	}
	return nil
}
