package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/keeper"
)

// openStore opens what keeps the cluster's objects. It stays open, or is opened again, until it is closed.
func openStore(ctx context.Context, data *dataDir, log *slog.Logger) (*keeper.Keeper, error) {
	kept, err := keeper.Open(ctx, keeper.Config{Dir: data.path, Copies: data.snapshots(), Log: log, Open: func(ctx context.Context) (keeper.Engine, error) {
		return etcd.Open(ctx, etcd.Config{Dir: data.etcd(), Log: log})
	}})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return kept, nil
}
