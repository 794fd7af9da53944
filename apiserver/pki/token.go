package pki

import (
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
)

// Bounds of a token's life, as in Kubernetes' TokenRequest.
const (
	minTokenLife     = 10 * time.Minute
	maxTokenLife     = 365 * 24 * time.Hour
	defaultTokenLife = time.Hour
	leeway           = time.Minute // for a clock that is set a little
)

// Tokens issues and verifies service account tokens: JWTs signed with ES256 whose claims are Kubernetes'.
type Tokens struct {
	issuer string
	now    func() time.Time
	key    crypto.Signer
}

// Tokens opens the token key in the authority's directory, or makes it. issuer is the "iss" claim and the default
// audience.
func (a *Authority) Tokens(issuer string) (*Tokens, error) {
	path := filepath.Join(a.dir, "service-account.key")
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open service account key: %w", err)
	}
	return &Tokens{issuer: issuer, now: a.now, key: key}, nil
}

// reference names an object inside a token.
type reference struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

type privateClaims struct {
	Namespace      string     `json:"namespace"`
	ServiceAccount reference  `json:"serviceaccount"`
	Pod            *reference `json:"pod,omitempty"`
	Secret         *reference `json:"secret,omitempty"`
}

type claims struct {
	jwt.RegisteredClaims
	Kubernetes privateClaims `json:"kubernetes.io"`
}

// Issue returns a token for a service account and when it expires. bound may name a Pod or Secret with whose
// deletion the token ends. A ttl of zero means one hour; it is kept within ten minutes and a year.
func (t *Tokens) Issue(account *corev1.ServiceAccount, bound *authenticationv1.BoundObjectReference, audiences []string, ttl time.Duration) (string, time.Time, error) {
	if ttl == 0 {
		ttl = defaultTokenLife
	}
	ttl = min(max(ttl, minTokenLife), maxTokenLife)
	if len(audiences) == 0 {
		audiences = []string{t.issuer}
	}
	now := t.now()
	expires := now.Add(ttl)
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    t.issuer,
			Subject:   "system:serviceaccount:" + account.Namespace + ":" + account.Name,
			Audience:  audiences,
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(expires),
			ID:        uuid.NewString(),
		},
		Kubernetes: privateClaims{
			Namespace:      account.Namespace,
			ServiceAccount: reference{Name: account.Name, UID: string(account.UID)},
		},
	}
	if bound != nil {
		ref := &reference{Name: bound.Name, UID: string(bound.UID)}
		switch bound.Kind {
		case "Pod":
			c.Kubernetes.Pod = ref
		case "Secret":
			c.Kubernetes.Secret = ref
		default:
			return "", time.Time{}, fmt.Errorf("issue token: a token cannot be bound to a %s (want Pod or Secret)", bound.Kind)
		}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, c).SignedString(t.key)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign token: %w", err)
	}
	return token, expires, nil
}

// Account is what a valid token says. Whether the objects still exist is for the caller to check.
type Account struct {
	Namespace, Name, UID string
	PodName, PodUID      string // empty: not bound to a Pod
	SecretName           string // empty: not bound to a Secret
	SecretUID            string
	TokenID              string
}

// User returns the account's user name.
func (a Account) User() string { return "system:serviceaccount:" + a.Namespace + ":" + a.Name }

// Groups returns the groups a service account is in.
func (a Account) Groups() []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + a.Namespace, "system:authenticated"}
}

// ErrToken says that a token is not valid here. It never quotes the token.
var ErrToken = errors.New("token is not valid")

// Verify checks signature, issuer, audience and time, and returns what the token says.
func (t *Tokens) Verify(token string) (Account, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return t.key.Public().(*ecdsa.PublicKey), nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(t.issuer), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(t.now))
	if err != nil {
		return Account{}, ErrToken
	}
	account := Account{Namespace: c.Kubernetes.Namespace, Name: c.Kubernetes.ServiceAccount.Name, UID: c.Kubernetes.ServiceAccount.UID, TokenID: c.ID}
	if !slices.Contains(c.Audience, t.issuer) || account.Namespace == "" || account.Name == "" ||
		c.Subject != account.User() {
		return Account{}, ErrToken
	}
	if pod := c.Kubernetes.Pod; pod != nil {
		account.PodName, account.PodUID = pod.Name, pod.UID
	}
	if secret := c.Kubernetes.Secret; secret != nil {
		account.SecretName, account.SecretUID = secret.Name, secret.UID
	}
	return account, nil
}
