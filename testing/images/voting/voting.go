// Package voting makes the images that Docker's example voting app names: Debian's own redis and PostgreSQL with an
// entry point that behaves as the official images' does, and three small programs in the place of the app's vote,
// worker and result, which are written in Python, C# and JavaScript.
//
// It makes images only; the app's manifests are taken from its repository as they are.
package voting

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

// Users of the servers, as the images' /etc/passwd has them.
const (
	postgresUID = 70
	redisUID    = 999
)

const passwd = `root:x:0:0:root:/root:/bin/sh
postgres:x:70:70:PostgreSQL:/var/lib/postgresql:/bin/sh
redis:x:999:999:redis:/data:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
`

const group = "root:x:0:\npostgres:x:70:\nredis:x:999:\nnobody:x:65534:\n"

// unused is what neither server needs of what its packages depend on: maintainer scripts' Perl, the compiler of
// queries, the sources of locales.
var unused = []string{
	"usr/lib/*/libLLVM*", "usr/lib/llvm-*", "usr/lib/postgresql/*/lib/bitcode", "usr/lib/postgresql/*/lib/llvmjit*",
	"usr/lib/*/perl*", "usr/lib/*/libperl*", "usr/lib/*/libz3*", "usr/share/perl*", "usr/bin/perl*", "usr/share/i18n",
}

// The servers as Debian has them. initdb runs a shell; no dependency says so, for Debian always has one.
var (
	debianRedis    = images.Debian{Packages: []string{"redis-server"}, Without: unused}
	debianPostgres = images.Debian{Packages: []string{"postgresql", "dash"}, Without: unused}
)

// Fetch gets what Images needs from Debian's archive and the Go module proxy, unless it is here already. Images then
// works without a network.
func Fetch(ctx context.Context) error {
	modules := exec.CommandContext(ctx, "go", "mod", "download")
	modules.Dir = source(".")
	if out, err := modules.CombinedOutput(); err != nil {
		return fmt.Errorf("download modules of %s: %w\n%s", modules.Dir, err, out)
	}
	for _, packages := range []images.Debian{debianRedis, debianPostgres} {
		if err := packages.Fetch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Images makes all five. It fetches what is missing.
func Images(ctx context.Context) ([]images.Image, error) {
	var made []images.Image
	for _, name := range []string{"vote", "worker", "result"} {
		image, err := images.FromGo(ctx, source(name), "docker.io/dockersamples/examplevotingapp_"+name+":latest")
		if err != nil {
			return nil, err
		}
		made = append(made, image)
	}
	for _, server := range []func(context.Context) (images.Image, error){redis, postgres} {
		image, err := server(ctx)
		if err != nil {
			return nil, err
		}
		made = append(made, image)
	}
	return made, nil
}

// source is the folder of a program, which belongs to a module of its own.
func source(name string) string {
	return filepath.Join(need.ModuleRoot(), "testing", "images", "voting", "programs", name)
}

func redis(ctx context.Context) (images.Image, error) {
	return server(ctx, "docker.io/library/redis:alpine", debianRedis,
		map[string]images.File{"/data/": {UID: redisUID, GID: redisUID}},
		images.Config{
			Entrypoint: []string{"/entrypoint"}, Cmd: []string{"redis-server", "--protected-mode", "no", "--bind", "0.0.0.0"},
			WorkDir: "/data", Volumes: []string{"/data"},
		})
}

func postgres(ctx context.Context) (images.Image, error) {
	const data = "/var/lib/postgresql/data"
	return server(ctx, "docker.io/library/postgres:15-alpine", debianPostgres,
		map[string]images.File{
			"/var/lib/postgresql/": {UID: postgresUID, GID: postgresUID},
			data + "/":             {Mode: 0o1777, UID: postgresUID, GID: postgresUID},
			"/var/run/postgresql/": {Mode: 0o3777, UID: postgresUID, GID: postgresUID},
		},
		images.Config{
			Entrypoint: []string{"/entrypoint"}, Cmd: []string{"postgres"}, StopSignal: "SIGINT", Volumes: []string{data},
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PGDATA=" + data},
		})
}

// server makes an image of packages with the entry point and with folders of the server's own.
func server(ctx context.Context, ref string, debian images.Debian, files map[string]images.File, cfg images.Config) (images.Image, error) {
	image, err := debian.Image(ctx, ref)
	if err != nil {
		return images.Image{}, err
	}
	binary, err := images.BuildGo(ctx, source("entrypoint"))
	if err != nil {
		return images.Image{}, fmt.Errorf("make image %s: %w", ref, err)
	}
	files["/entrypoint"] = images.File{Data: binary, Mode: 0o755}
	files["/etc/passwd"] = images.File{Data: []byte(passwd)}
	files["/etc/group"] = images.File{Data: []byte(group)}
	if image, err = image.Add(files); err != nil {
		return images.Image{}, err
	}
	return image.With(ref, cfg)
}
