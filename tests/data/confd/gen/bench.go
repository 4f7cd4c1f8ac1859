package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"text/template"
	"time"
)

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

// Renders TEMPLATE with DATA ROUNDS times: microseconds a round, bytes of one output.
func bench(args []string) {
	text, err := os.ReadFile(args[0])
	need(err)
	raw, err := os.ReadFile(args[1])
	need(err)
	rounds, err := strconv.Atoi(args[2])
	need(err)
	data := value(json.RawMessage(raw))
	t := template.Must(template.New("t").Funcs(funcs).Parse(string(text)))
	out := counter{}
	begin := time.Now()
	for i := 0; i < rounds; i++ {
		out.n = 0
		need(t.Execute(&out, data))
	}
	took := time.Since(begin)
	fmt.Printf("%.3f us, %d bytes\n", float64(took.Microseconds())/float64(rounds), out.n)
}
