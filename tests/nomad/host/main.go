// Command host is Nomad's client side of a driver plugin without the rest of Nomad: its plugin
// loader, driver manager, log collector and driver client, in the version go.mod names.
//
// It is driven by a test. One JSON object per line comes in: {"id": 1, "op": "stop", …}; the
// answer is {"re": 1, "ok": true, …} or {"re": 1, "ok": false, "error": "…"}. Commands run side
// by side, so answers may come in another order. Lines with "event" come unasked. The agent's log
// goes to stderr. The end of stdin is a clean shutdown; a SIGKILL is what an agent's crash is.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// Answer is any line written: keys of an answer or of an event.
type Answer map[string]any

// Wire writes lines to stdout, whole, from any goroutine.
type Wire struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (w *Wire) send(line Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, "host: cannot write a line:", err)
		os.Exit(1)
	}
}

func (w *Wire) answer(id int, result Answer, err error) {
	if result == nil {
		result = Answer{}
	}
	result["re"], result["ok"] = id, err == nil
	if err != nil {
		result["error"] = err.Error()
	}
	w.send(result)
}

func main() {
	wire := &Wire{out: json.NewEncoder(os.Stdout)}
	logger := hclog.New(&hclog.LoggerOptions{
		Name: "host", Level: hclog.Debug, Output: os.Stderr, JSONFormat: true,
	})
	host := newHost(logger, wire.send)
	defer host.shutdown()
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var command Command
		if err := json.Unmarshal(line, &command); err != nil {
			wire.answer(0, nil, fmt.Errorf("not a command: %w", err))
			continue
		}
		operation, known := operations[command.Op]
		if !known {
			wire.answer(command.ID, nil, fmt.Errorf("no operation %q", command.Op))
			continue
		}
		go func() {
			result, err := operation(host, &command)
			wire.answer(command.ID, result, err)
		}()
	}
}
