package volume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
)

// file is one projected file.
type file struct {
	data []byte
	mode uint32
	uid  int // -1: root
}

// content is a projected volume: files by path, and the group that may read them (nil: root's).
type content struct {
	files map[string]file
	group *int64
}

// content fetches what a projected volume holds.
func (v *Volumes) content(ctx context.Context, self downward.Self, vol corev1.Volume) (content, time.Time, error) {
	out := content{files: map[string]file{}, group: fsGroup(self.Pod)}
	b := builder{ctx: ctx, v: v, self: self, volume: vol.Name, out: &out}
	switch {
	case vol.ConfigMap != nil:
		b.mode = mode(vol.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
		b.configMap(vol.ConfigMap.Name, vol.ConfigMap.Items, vol.ConfigMap.Optional)
	case vol.Secret != nil:
		b.mode = mode(vol.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
		b.secret(vol.Secret.SecretName, vol.Secret.Items, vol.Secret.Optional)
	case vol.DownwardAPI != nil:
		b.mode = mode(vol.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		b.downward(vol.DownwardAPI.Items)
	case vol.Projected != nil:
		b.mode = mode(vol.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for _, source := range vol.Projected.Sources {
			b.projection(source)
		}
	}
	return out, b.due, b.err
}

func mode(given *int32, otherwise int32) uint32 {
	if given != nil {
		return uint32(*given)
	}
	return uint32(otherwise)
}

// builder collects files until the first error.
type builder struct {
	ctx    context.Context
	v      *Volumes
	self   downward.Self
	volume string
	mode   uint32
	out    *content
	due    time.Time
	err    error
}

func (b *builder) projection(source corev1.VolumeProjection) {
	switch {
	case b.err != nil:
	case source.ConfigMap != nil:
		b.configMap(source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional)
	case source.Secret != nil:
		b.secret(source.Secret.Name, source.Secret.Items, source.Secret.Optional)
	case source.DownwardAPI != nil:
		b.downward(source.DownwardAPI.Items)
	case source.ServiceAccountToken != nil:
		b.token(source.ServiceAccountToken)
	default:
		b.err = fmt.Errorf("this kind of projection is not supported")
	}
}

func (b *builder) configMap(name string, items []corev1.KeyToPath, optional *bool) {
	cm, err := b.v.source.ConfigMap(b.ctx, b.self.Pod, name)
	if b.missing(err, optional) {
		return
	}
	data := map[string][]byte{}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, cm.BinaryData)
	b.keys(data, items, optional, "config")
}

func (b *builder) secret(name string, items []corev1.KeyToPath, optional *bool) {
	secret, err := b.v.source.Secret(b.ctx, b.self.Pod, name)
	if b.missing(err, optional) {
		return
	}
	b.keys(secret.Data, items, optional, "secret")
}

// missing reports whether there is nothing to add, because of an error or because it is optional.
func (b *builder) missing(err error, optional *bool) bool {
	if err == nil {
		return false
	}
	if !apierrors.IsNotFound(err) || optional == nil || !*optional {
		b.err = err
	}
	return true
}

// keys adds all keys, or those items name.
func (b *builder) keys(data map[string][]byte, items []corev1.KeyToPath, optional *bool, what string) {
	if items == nil {
		for k, v := range data {
			b.out.files[k] = file{data: v, mode: b.mode, uid: -1}
		}
		return
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional == nil || !*optional {
				b.err = fmt.Errorf("references non-existent %s key: %s", what, item.Key)
				return
			}
			continue
		}
		b.out.files[item.Path] = file{data: value, mode: mode(item.Mode, int32(b.mode)), uid: -1}
	}
}

func (b *builder) downward(items []corev1.DownwardAPIVolumeFile) {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = b.self.Field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = b.self.Resource(item.ResourceFieldRef, "")
		}
		if err != nil {
			b.err = err
			return
		}
		b.out.files[item.Path] = file{data: []byte(value), mode: mode(item.Mode, int32(b.mode)), uid: -1}
	}
}

func (b *builder) token(p *corev1.ServiceAccountTokenProjection) {
	seconds := int64(3600)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	t, err := b.v.token(b.ctx, b.self.Pod, tokenKey{b.self.Pod.UID, b.volume, p.Path, p.Audience, seconds})
	if err != nil {
		b.err = fmt.Errorf("fetch token: %w", err)
		return
	}
	if b.due.IsZero() || t.refresh.Before(b.due) {
		b.due = t.refresh
	}
	f := file{data: []byte(t.value), mode: b.mode, uid: -1}
	if uid := onlyUser(b.self.Pod); uid != nil {
		f.uid, f.mode = int(*uid), 0o600
	}
	if b.out.group != nil {
		f.mode = 0o600 // the group's right is added with the group
	}
	b.out.files[p.Path] = f
}

// onlyUser returns the user all containers of a Pod run as, nil when they differ or it is not said.
func onlyUser(pod *corev1.Pod) *int64 {
	var podUser, only *int64
	if sc := pod.Spec.SecurityContext; sc != nil {
		podUser = sc.RunAsUser
	}
	for i, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		user := podUser
		if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			user = c.SecurityContext.RunAsUser
		}
		if user == nil || (i > 0 && *user != *only) {
			return nil
		}
		only = user
	}
	return only
}

type tokenKey struct {
	pod                    types.UID
	volume, path, audience string
	seconds                int64
}

type token struct {
	value       string
	refresh     time.Time // by the clock that only goes on
	from, until time.Time // by the clock that can be set: the API server goes by it
}

// newToken is a token that is to be made anew after four fifths of its life.
func newToken(value string, now, expires time.Time) *token {
	life := expires.Round(0).Sub(now.Round(0))
	return &token{value: value, refresh: now.Add(life * 4 / 5), from: now.Round(0).Add(-time.Minute), until: expires.Round(0).Add(-life / 10)}
}

// good says whether the token may stay, at a time by each clock.
func (t *token) good(now, wall time.Time) bool {
	return now.Before(t.refresh) && wall.After(t.from) && wall.Before(t.until)
}

// token returns the token a file holds, a new one when it is due.
func (v *Volumes) token(ctx context.Context, pod *corev1.Pod, key tokenKey) (*token, error) {
	v.mu.Lock()
	known := v.tokens[key]
	v.mu.Unlock()
	now := time.Now()
	if known != nil && known.good(now, now.Round(0)) {
		return known, nil
	}
	value, expires, err := v.source.Token(ctx, pod, key.audience, key.seconds)
	if err != nil {
		return nil, err
	}
	fresh := newToken(value, now, expires)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tokens[key] = fresh
	return fresh, nil
}

func (v *Volumes) forget(uid types.UID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key := range v.tokens {
		if key.pod == uid {
			delete(v.tokens, key)
		}
	}
}
