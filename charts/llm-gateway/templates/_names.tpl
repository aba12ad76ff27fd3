{{/* Names and labels. */}}

{{- define "llm-gateway.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "llm-gateway.fullname" -}}
{{- $name := include "llm-gateway.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" (.Release.Name | replace "." "-") $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "llm-gateway.valkey" -}}
{{ include "llm-gateway.fullname" . }}-valkey
{{- end }}

{{- define "llm-gateway.management" -}}
{{ include "llm-gateway.fullname" . }}-management
{{- end }}

{{- define "llm-gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "llm-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Namespaced names for what stands in another namespace than the release. */}}
{{- define "llm-gateway.foreign" -}}
{{ .Release.Namespace }}-{{ include "llm-gateway.fullname" . }}
{{- end }}

{{/* What a selector names. Called with the context and a component: (list . "gateway"). */}}
{{- define "llm-gateway.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "llm-gateway.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* What an object has, called likewise, with further labels as a third element: (list . "gateway" .Values.x.labels). A
label that several name is there once: what selectors go by stays, then the object's own counts, then commonLabels. */}}
{{- define "llm-gateway.labels" -}}
{{- $root := index . 0 -}}
{{- $usual := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $usual "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- include "llm-gateway.allLabels" (append (list $root (index . 1) $usual) (slice . 2 | first)) }}
{{- end }}

{{/* What a pod has: nothing that changes with the chart alone, since that would restart it. Called likewise. */}}
{{- define "llm-gateway.podLabels" -}}
{{- $usual := dict "app.kubernetes.io/part-of" "llm-gateway" }}
{{- include "llm-gateway.allLabels" (append (list (index . 0) (index . 1) $usual) (slice . 2 | first)) }}
{{- end }}

{{/* (list CONTEXT COMPONENT USUAL MORE) */}}
{{- define "llm-gateway.allLabels" -}}
{{- $root := index . 0 -}}
{{- $selector := include "llm-gateway.selector" (list $root (index . 1)) | fromYaml }}
{{- toYaml (merge $selector (default dict (index . 3)) $root.Values.commonLabels (index . 2)) }}
{{- end }}

{{- define "llm-gateway.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "llm-gateway.valkeyImage" -}}
{{- $image := .Values.valkey.image }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository $image.tag }}
{{- end }}
{{- end }}
