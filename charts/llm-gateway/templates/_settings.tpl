{{/* The settings of the gateway, and the credentials that they read from files. */}}

{{/* Where credentials of the settings are mounted. */}}
{{- define "llm-gateway.settingsFolder" -}}
/etc/llm-gateway/settings
{{- end }}

{{/* Settings by name that say where an existing Redis is: (list CONTEXT VALUES SETTING FILE), the first parts of the
names of settings and of files. */}}
{{- define "llm-gateway.existingRedisSettings" -}}
{{- $folder := include "llm-gateway.settingsFolder" (index . 0) }}
{{- $values := index . 1 }}
{{- $setting := index . 2 }}
{{- $file := index . 3 }}
{{- if $values.urlSecret.name }}
{{ $setting }}_URL_FILE: {{ $folder }}/{{ $file }}-url
{{- else }}
{{ $setting }}_URL: {{ $values.url | quote }}
{{- end }}
{{- if $values.credentialsSecret.name }}
{{ $setting }}_CREDENTIALS_FILE: {{ $folder }}/{{ $file }}-credentials
{{- end }}
{{- if $values.caSecret.name }}
{{ $setting }}_CA_FILE: {{ $folder }}/{{ $file }}-ca.crt
{{- end }}
{{- end }}

{{/* The sources of a projected volume with its credentials: (list VALUES FILE). */}}
{{- define "llm-gateway.existingRedisSources" -}}
{{- $values := index . 0 }}
{{- $file := index . 1 }}
{{ include "llm-gateway.source" (list $values.urlSecret (printf "%s-url" $file)) }}
{{ include "llm-gateway.source" (list $values.credentialsSecret (printf "%s-credentials" $file)) }}
{{ include "llm-gateway.source" (list $values.caSecret (printf "%s-ca.crt" $file)) }}
{{- end }}

{{/* Whether the cache has a Redis of its own: some text, or nothing. */}}
{{- define "llm-gateway.hasCacheRedis" -}}
{{- if or .Values.cacheRedis.url .Values.cacheRedis.urlSecret.name }}yes{{ end }}
{{- end }}

{{/* Settings by name that say where the Redis of the limits is. */}}
{{- define "llm-gateway.redisSettings" -}}
{{- if eq .Values.redis.mode "bundled" }}
LLM_GATEWAY_REDIS_URL: {{ printf "redis://%s:6379/0" (include "llm-gateway.valkey" .) | quote }}
LLM_GATEWAY_REDIS_CREDENTIALS_FILE: {{ include "llm-gateway.settingsFolder" . }}/redis-credentials
{{- else if eq .Values.redis.mode "external" }}
{{- include "llm-gateway.existingRedisSettings" (list . .Values.redis.external "LLM_GATEWAY_REDIS" "redis") }}
{{- end }}
{{- end }}

{{/* The sources of a projected volume with the credentials of that Redis. */}}
{{- define "llm-gateway.redisSources" -}}
{{- if eq .Values.redis.mode "bundled" }}
{{ include "llm-gateway.source" (list (include "llm-gateway.valkeySecret" . | fromYaml) "redis-credentials") }}
{{- else if eq .Values.redis.mode "external" }}
{{ include "llm-gateway.existingRedisSources" (list .Values.redis.external "redis") }}
{{- end }}
{{- end }}

{{/* One source of a projected volume: (list {name, key} FILE); nothing without a name. */}}
{{- define "llm-gateway.source" -}}
{{- with index . 0 }}
{{- if .name }}
- secret:
    name: {{ .name | quote }}
    items:
    - {key: {{ .key | quote }}, path: {{ index $ 1 }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The sources of all credentials of the settings. */}}
{{- define "llm-gateway.settingsSources" -}}
{{ include "llm-gateway.redisSources" . }}
{{- if include "llm-gateway.hasCacheRedis" . }}
{{ include "llm-gateway.existingRedisSources" (list .Values.cacheRedis "cache-redis") }}
{{- end }}
{{ include "llm-gateway.source" (list .Values.admin.tokenSecret "admin-token") }}
{{ include "llm-gateway.source" (list .Values.admin.readTokenSecret "admin-read-token") }}
{{- end }}

{{/* Every setting by its name. */}}
{{- define "llm-gateway.settings" -}}
{{- $folder := include "llm-gateway.settingsFolder" . }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ include "llm-gateway.settingText" $value }}
{{- end }}
LLM_GATEWAY_LISTEN: {{ printf "%s:8080" .Values.bindAddress | quote }}
LLM_GATEWAY_MANAGEMENT_LISTEN: {{ printf "%s:8081" .Values.bindAddress | quote }}
LLM_GATEWAY_DRAIN_S: {{ printf "%ds" (int .Values.drain.seconds) | quote }}
LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S: {{ printf "%ds" (int .Values.drain.keepAliveSeconds) | quote }}
{{- if eq .Values.registry.source "kubernetes" }}
LLM_GATEWAY_REGISTRY_SOURCE: kubernetes
LLM_GATEWAY_REGISTRY_NAMESPACE: {{ .Values.registry.namespace | quote }}
LLM_GATEWAY_REGISTRY_WRITE_KEYS: {{ .Values.registry.writeKeys | quote }}
{{- with .Values.discovery.namespaces }}
LLM_GATEWAY_DISCOVERY_NAMESPACES: {{ join "," . | quote }}
{{- end }}
{{- else }}
LLM_GATEWAY_REGISTRY_SOURCE: folder
LLM_GATEWAY_REGISTRY: /etc/llm-gateway/registry
{{- end }}
{{- if .Values.credentials.secrets }}
LLM_GATEWAY_SECRETS_DIR: /etc/llm-gateway/secrets
{{- end }}
{{- include "llm-gateway.redisSettings" . }}
{{- if include "llm-gateway.hasCacheRedis" . }}
{{- include "llm-gateway.existingRedisSettings" (list . .Values.cacheRedis "LLM_GATEWAY_CACHE_REDIS" "cache-redis") }}
{{- end }}
{{- if .Values.admin.tokenSecret.name }}
LLM_GATEWAY_ADMIN_TOKEN_FILE: {{ $folder }}/admin-token
{{- end }}
{{- if .Values.admin.readTokenSecret.name }}
LLM_GATEWAY_ADMIN_READ_TOKEN_FILE: {{ $folder }}/admin-read-token
{{- end }}
{{- end }}

{{/* A number as it was written: large ones arrive as floats. */}}
{{- define "llm-gateway.settingText" -}}
{{- if kindIs "float64" . }}
{{- if eq . (floor .) }}{{ printf "%.0f" . | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- else }}
{{- toString . | quote }}
{{- end }}
{{- end }}
