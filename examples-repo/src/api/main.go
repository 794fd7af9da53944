// Command api knows what the shop sells: it reads the catalogue from a file (a ConfigMap) and counts sales in the
// cache, which it finds by name. Callers show the shop key (a Secret).
package main

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Price string `json:"price"`
	Emoji string `json:"emoji"`
	Sold  int    `json:"sold"`
}

type shop struct {
	catalogue string // path
	cache     string // host:port
	key       string
}

func main() {
	s := &shop{catalogue: os.Getenv("CATALOGUE"), cache: os.Getenv("CACHE"), key: os.Getenv("SHOP_KEY")}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products", s.authorized(s.products))
	mux.HandleFunc("POST /buy/{id}", s.authorized(s.buy))
	mux.HandleFunc("GET /readyz", s.ready)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		log.Print("told to stop: finishing what is under way")
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}()
	log.Printf("api listens on %s, cache is %s", server.Addr, s.cache)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func (s *shop) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Shop-Key")), []byte(s.key)) != 1 {
			http.Error(w, "wrong shop key", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

func (s *shop) products(w http.ResponseWriter, _ *http.Request) {
	products, err := s.load()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for i := range products {
		if products[i].Sold, err = s.ask("GET " + products[i].ID); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(products); err != nil {
		log.Print(err)
	}
}

func (s *shop) buy(w http.ResponseWriter, r *http.Request) {
	products, err := s.load()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, p := range products {
		if p.ID != r.PathValue("id") {
			continue
		}
		sold, err := s.ask("INCR " + p.ID)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		log.Printf("sold %s, %d so far", p.ID, sold)
		fmt.Fprintln(w, sold)
		return
	}
	http.Error(w, "we do not sell that", http.StatusNotFound)
}

// ready says whether the shop could sell something now.
func (s *shop) ready(w http.ResponseWriter, _ *http.Request) {
	if _, err := s.load(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (s *shop) load() ([]product, error) {
	data, err := os.ReadFile(s.catalogue)
	if err != nil {
		return nil, err
	}
	var products []product
	return products, json.Unmarshal(data, &products)
}

// ask sends one command to the cache and returns the number it answers.
func (s *shop) ask(command string) (int, error) {
	conn, err := net.DialTimeout("tcp", s.cache, 2*time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}
