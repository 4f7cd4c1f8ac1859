package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"text/template"
	"time"
)

func peak() string {
	status, err := os.ReadFile("/proc/self/status")
	need(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	return strings.Fields(rest)[0]
}

// Renders TEMPLATE with DATA ROUNDS times; prints what tests/bench/bench_template.c prints.
func bench(args []string) {
	text, err := os.ReadFile(args[0])
	need(err)
	raw, err := os.ReadFile(args[1])
	need(err)
	rounds, err := strconv.Atoi(args[2])
	need(err)
	data := value(json.RawMessage(raw))
	t := template.Must(template.New("t").Funcs(funcs).Parse(string(text)))
	var out bytes.Buffer
	raw = nil
	debug.FreeOSMemory()
	need(os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)) // what reading took is not counted
	begin := time.Now()
	for i := 0; i < rounds; i++ {
		out.Reset()
		need(t.Execute(&out, data))
	}
	took := time.Since(begin)
	var sum uint64
	for _, c := range out.Bytes() {
		sum = sum*31 + uint64(c)
	}
	fmt.Printf("us %.3f\nbytes %d\nsum %d\npeak_kib %s\n", float64(took.Nanoseconds())/1000/float64(rounds),
		out.Len(), sum, peak())
}
