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
# The password stands in no argument and no variable: it is given on standard input, in quotes of the configuration.
start.sh: |
  set -eu
  password=$(sed -e 's/[\\"]/\\&/g' /etc/valkey/credentials/password)
  exec valkey-server /etc/valkey/config/valkey.conf - <<END
  requirepass "$password"
  END
ready.sh: |
  set -eu
  export REDISCLI_AUTH="$(cat /etc/valkey/credentials/password)"
  test "$(valkey-cli -h 127.0.0.1 -p 6379 ping)" = PONG
{{- end }}
