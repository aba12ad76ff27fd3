{{/* The Secret with the password, as {name, key}. */}}
{{- define "llm-gateway.valkeySecret" -}}
{{- $own := dict "name" (include "llm-gateway.valkey" .) "key" "password" }}
{{- toYaml (ternary .Values.valkey.existingSecret $own (ne .Values.valkey.existingSecret.name "")) }}
{{- end }}

{{/* What the bundled server is configured with. */}}
{{- define "llm-gateway.valkeyConfig" -}}
valkey.conf: |
  bind * -::*
  protected-mode no
  port 6379
  dir /data
  maxmemory {{ .Values.valkey.maxMemory }}
  # Limits must not be forgotten for want of memory.
  maxmemory-policy noeviction
  appendonly yes
  appendfsync everysec
  save ""
  tcp-keepalive 60
# The password stands in no argument and in no variable of the server, which knows its digest alone. While the server
# runs it is given a changed one within seconds; the one before is good for a while, since the files of the gateways
# change at their own times. Connections that are there stay, whatever they came in with.
start.sh: |
  set -eu
  file=/etc/valkey/credentials/password

  digest() {
    printf %s "$1" | sha256sum | cut -c 1-64
  }

  # The passwords that are good from now on, instead of all others.
  accept() {
    rules=resetpass
    for each in "$@"; do rules="$rules #$(digest "$each")"; done
    test "$(REDISCLI_AUTH=$current valkey-cli -h 127.0.0.1 -p 6379 ACL SETUSER default $rules)" = OK
  }

  follow() {
    rounds=0
    while sleep 2 && kill -0 $$; do # $$ becomes the server
      next=$(cat "$file") || continue
      if [ -n "$next" ] && [ "$next" != "$current" ]; then
        if accept "$next" "$current"; then
          current=$next
          rounds={{ div (add .Values.valkey.passwordOverlapSeconds 1) 2 }}
          echo "the password has changed; the one before is good for {{ int .Values.valkey.passwordOverlapSeconds }} s"
        fi
      elif [ "$rounds" -gt 1 ]; then
        rounds=$((rounds - 1))
      elif [ "$rounds" -eq 1 ] && accept "$current"; then
        rounds=0
        echo "the password before is not good any more"
      fi
    done
  }

  current=$(cat "$file")
  if [ -z "$current" ]; then
    echo "the password is empty" >&2
    exit 1
  fi
  follow 2>/dev/null &
  exec valkey-server /etc/valkey/config/valkey.conf - <<END
  user default on #$(digest "$current") ~* &* +@all
  END
ready.sh: |
  set -eu
  export REDISCLI_AUTH="$(cat /etc/valkey/credentials/password)"
  test "$(valkey-cli -h 127.0.0.1 -p 6379 ping)" = PONG
{{- end }}
