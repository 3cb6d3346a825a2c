package pabalnats_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// identity is a key pair of a test.
type identity struct {
	pair   nkeys.KeyPair
	public string
	seed   []byte
}

func newIdentity(t *testing.T, create func() (nkeys.KeyPair, error)) identity {
	t.Helper()
	pair := must(create())(t)
	return identity{pair, must(pair.PublicKey())(t), must(pair.Seed())(t)}
}

func secretFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// logsIn connects, publishes and receives.
func logsIn(t *testing.T, url string, login nats.Option) {
	t.Helper()
	b := openVillage(t, url, &pabalnats.Options{Logger: quiet(), NATS: []nats.Option{login}})
	if v := publishOne(t, b); v.Kind != driver.Accepted {
		t.Fatalf("published: %v", v)
	}
	if got := receive(t, b, 1); len(got) != 1 {
		t.Errorf("%d messages came", len(got))
	}
}

// isRefused connects in vain, and is told why.
func isRefused(t *testing.T, url string, logins ...nats.Option) {
	t.Helper()
	b, err := pabalnats.Connect(t.Context(), url, &pabalnats.Options{Logger: quiet(), NATS: logins})
	if err == nil {
		_ = b.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "the server refuses user, password, token, key or credentials") {
		t.Errorf("it answers %v", err)
	}
}

func TestLogInByNkey(t *testing.T) {
	known, other := newIdentity(t, nkeys.CreateUser), newIdentity(t, nkeys.CreateUser)
	server := servers.NATS(t, &servers.NATSOptions{Settings: []string{
		fmt.Sprintf("authorization { users: [ { nkey: %s } ] }", known.public),
	}})
	login := func(i identity) nats.Option { return must(nats.NkeyOptionFromSeed(secretFile(t, "seed", i.seed)))(t) }
	logsIn(t, server.URL, login(known))
	isRefused(t, server.URL, login(other))
	isRefused(t, server.URL)
}

// company is an operator with an account that has JetStream, whose users log in by credentials: JWTs that the account has
// signed. The server knows its accounts from its configuration ("resolver: MEMORY").
type company struct {
	operator, account identity
	settings          []string
}

func newCompany(t *testing.T) *company {
	t.Helper()
	c := &company{newIdentity(t, nkeys.CreateOperator), newIdentity(t, nkeys.CreateAccount), nil}
	system := newIdentity(t, nkeys.CreateAccount)
	operator := jwt.NewOperatorClaims(c.operator.public)
	operator.SystemAccount = system.public
	account := jwt.NewAccountClaims(c.account.public)
	account.Name = "shop"
	account.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
	}
	sign := func(claims interface {
		Encode(nkeys.KeyPair) (string, error)
	}) string {
		return must(claims.Encode(c.operator.pair))(t)
	}
	c.settings = []string{
		fmt.Sprintf("operator: %q", sign(operator)), "resolver: MEMORY", "system_account: " + system.public,
		fmt.Sprintf("resolver_preload { %s: %q, %s: %q }", c.account.public, sign(account),
			system.public, sign(jwt.NewAccountClaims(system.public))),
	}
	return c
}

// credentials are a file with a user's JWT, which its account has signed, and seed.
func (c *company) credentials(t *testing.T, adjust func(*jwt.UserClaims)) string {
	t.Helper()
	user := newIdentity(t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(user.public)
	if adjust != nil {
		adjust(claims)
	}
	token := must(claims.Encode(c.account.pair))(t)
	return secretFile(t, "user.creds", must(jwt.FormatUserConfig(token, user.seed))(t))
}

func TestLogInByCredentials(t *testing.T) {
	c, other := newCompany(t), newCompany(t)
	server := servers.NATS(t, &servers.NATSOptions{Settings: c.settings})
	logsIn(t, server.URL, nats.UserCredentials(c.credentials(t, nil)))
	isRefused(t, server.URL, nats.UserCredentials(other.credentials(t, nil)))
	isRefused(t, server.URL)
	_, err := pabalnats.Connect(t.Context(), server.URL, &pabalnats.Options{Logger: quiet(), NATS: []nats.Option{nats.UserCredentials("none.creds")}})
	if err == nil || !strings.Contains(err.Error(), "none.creds") {
		t.Errorf("without the file it answers %v", err)
	}
}

// Credentials that run out while we are connected, and are put anew into their file, cost a connection and nothing else.
func TestCredentialsThatRunOutAreReadAgain(t *testing.T) {
	c := newCompany(t)
	server := servers.NATS(t, &servers.NATSOptions{Settings: c.settings})
	file := c.credentials(t, func(u *jwt.UserClaims) { u.Expires = time.Now().Add(3 * time.Second).Unix() })
	log := &said{}
	b := openVillage(t, server.URL, &pabalnats.Options{Logger: log.logger(), NATS: []nats.Option{nats.UserCredentials(file)}})
	if v := publishOne(t, b); v.Kind != driver.Accepted {
		t.Fatalf("published: %v", v)
	}
	within(t, 20*time.Second, "the log says that the connection is lost", func() bool {
		return strings.Contains(log.String(), "NATS connection lost, reconnecting")
	})
	within(t, 20*time.Second, "the log says why it does not come back", func() bool {
		return strings.Contains(log.String(), "authorization violation")
	})
	text := must(os.ReadFile(c.credentials(t, nil)))(t)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "messages are accepted again", func() bool { return publishOne(t, b).Kind == driver.Accepted })
}
