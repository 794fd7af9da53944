package pki

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

const (
	// lookEvery is how often Keep looks at the clock.
	lookEvery = 10 * time.Second
	// mostTrusted bounds how many certificates of the authority are trusted at once, however often the clock is set.
	mostTrusted = 4
	// setBy is by how much a clock must be off its own count to have been set.
	setBy = time.Minute
)

// due says why a certificate must be made anew, or nothing.
func due(cert *x509.Certificate, now time.Time, spare time.Duration) string {
	switch {
	case now.Before(cert.NotBefore):
		return "is not valid before " + cert.NotBefore.Format(time.RFC3339)
	case now.After(cert.NotAfter):
		return "ended at " + cert.NotAfter.Format(time.RFC3339)
	case cert.NotAfter.Sub(now) < spare:
		return "ends at " + cert.NotAfter.Format(time.RFC3339)
	}
	return ""
}

// order returns the certificates of an authority with the one that should sign first, and why a new one is needed.
func order(certs []*x509.Certificate, now time.Time) (ordered []*x509.Certificate, why string) {
	ordered = slices.Clone(certs)
	for i, cert := range ordered {
		if reason := due(cert, now, authoritySpare); reason == "" {
			return append([]*x509.Certificate{cert}, slices.Delete(ordered, i, i+1)...), ""
		} else if why == "" {
			why = reason
		}
	}
	return ordered, why
}

// Renew makes the authority's certificate anew when the present one is near its end or not valid by the clock. What
// it did is said by the next call of news.
func (a *Authority) Renew() error {
	a.renewing.Lock()
	defer a.renewing.Unlock()
	now := a.now()
	certs := a.trusted()
	ordered, why := order(certs, now)
	if why == "" {
		if ordered[0] != certs[0] {
			return a.trust(ordered) // the clock was set back
		}
		return nil
	}
	fresh, err := a.certify(certs[0])
	if err != nil {
		return err
	}
	ordered = slices.DeleteFunc(ordered, func(cert *x509.Certificate) bool { return now.After(cert.NotAfter) })
	ordered = append([]*x509.Certificate{fresh}, ordered...)
	if err := a.trust(ordered[:min(len(ordered), mostTrusted)]); err != nil {
		return err
	}
	a.done = append(a.done, fmt.Sprintf("the certificate of the authority %s: a new one is valid until %s, older ones are trusted as long as they last",
		why, fresh.NotAfter.Format(time.RFC3339)))
	return nil
}

// news returns what Renew did since it was last asked, in sentences.
func (a *Authority) news() []string {
	a.renewing.Lock()
	defer a.renewing.Unlock()
	done := a.done
	a.done = nil
	return done
}

// Keeper keeps certificates valid while a process runs.
type Keeper struct {
	Authority   *Authority
	Kubeconfigs []Kubeconfig
	Tell        func(line string) // for what people should know; one line each
	Log         *slog.Logger
}

// Run looks at the clock every ten seconds until ctx ends.
func (k Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failed := ""
	for wall, mark := k.Authority.now(), time.Now(); ; {
		now := k.Authority.now()
		if by := setOff(wall, now, time.Since(mark)); by.Abs() > setBy {
			k.Tell(fmt.Sprintf("the clock was set by %s, to %s", by.Round(time.Second), now.UTC().Format(time.RFC3339)))
		}
		wall, mark = now, time.Now()
		text := ""
		if err := k.look(); err != nil {
			text = err.Error()
		}
		if text != "" && text != failed {
			k.Log.Error("keep certificates valid", "err", text)
		}
		failed = text
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look renews what is due.
func (k Keeper) look() error {
	if err := k.Authority.Renew(); err != nil {
		return fmt.Errorf("renew the authority: %w", err)
	}
	for _, line := range k.Authority.news() {
		k.Tell(line)
	}
	for _, config := range k.Kubeconfigs {
		why, err := config.Refresh(k.Authority)
		if err != nil {
			return err
		}
		if why != "" {
			k.Tell(config.Path + " was written anew: " + why)
		}
	}
	return nil
}

// setOff returns by how much the wall clock was set between two looks at it, between which passed went by.
func setOff(last, now time.Time, passed time.Duration) time.Duration {
	return now.Round(0).Sub(last.Round(0)) - passed
}
