{{/* Parts that several pods share. */}}

{{/* A projected volume with these sources: (list NAME SOURCES); nothing without sources. */}}
{{- define "llm-gateway.projected" -}}
{{- with index . 1 | trim }}
- name: {{ index $ 0 }}
  projected:
    defaultMode: 0440
    sources:
    {{- . | nindent 4 }}
{{- end }}
{{- end }}

{{/* How all pods are placed and pulled: (list CONTEXT VALUES), the values of the gateway or of Valkey. */}}
{{- define "llm-gateway.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
